"""The attacks, a module each: `run(place, options)` gives the figures."""

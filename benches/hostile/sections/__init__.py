"""The attacks, a module each: `run(place)` gives the figures."""

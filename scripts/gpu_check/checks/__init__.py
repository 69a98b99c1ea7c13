"""The phases, a file each: `check(context)` adds its rows to the report."""

"""What both sides of the log agree on: tables, kinds, changes, wire form, errors, fault points."""

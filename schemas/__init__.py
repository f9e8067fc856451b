"""What both sides of the log agree on: tables, kinds, changes, the wire form, errors, fault points."""

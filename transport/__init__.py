"""The log between capture and apply: rows, commit records and the rules that say which of them count."""

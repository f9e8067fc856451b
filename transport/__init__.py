"""The log between capture and apply: rows, commit records, and which of them count."""

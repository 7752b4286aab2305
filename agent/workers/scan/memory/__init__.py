"""What a scan service remembers in ``spool/NAME/scan.db``: its runs, what each asked and found, and what is so now."""

"""From finished run folders to what is read: tables, figures, the report, the summary at the terminal."""

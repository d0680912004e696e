"""Tables: what they hold, and how they are written as Markdown, LaTeX, HTML and CSV."""

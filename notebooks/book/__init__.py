"""What the book needs beside Sphinx: formulas that need no script, docstrings in Markdown."""

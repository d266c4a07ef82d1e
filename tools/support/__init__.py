"""What several rooms of the tools share: command lines, rows, statistics, memory, Markdown."""

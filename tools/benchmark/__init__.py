"""What avdetect costs, and what it leaves behind. See README.md beside this file."""

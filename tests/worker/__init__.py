"""The program that serves and asks on another machine, spoken to without one."""

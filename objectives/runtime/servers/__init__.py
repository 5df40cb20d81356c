"""The package of servers: processes that answer requests over HTTP on loopback, and end with this one."""

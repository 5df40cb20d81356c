"""Loads a server over HTTP: requests, clients, bursts. Free of torch."""

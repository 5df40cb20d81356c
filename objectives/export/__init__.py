"""Writes a candidate to a folder that can be served, and loads it again as it was measured.

``winner`` writes the folder that was measured (``format=engine``), by ``checkpoint`` for torch; ``stock`` makes it one
that transformers opens, where it can be. ``stock_folder`` writes a stock format (``formats``), ``stock_check`` asks the
stock engines (``engines``, ``loaders``) about it, and ``card`` says what was seen.
"""

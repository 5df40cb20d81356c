"""Scripts that load an exported folder as its users would, with nothing of ours; one a stock engine.

A script is run by path, in the interpreter of its engine. ``argv`` names two files. The first is a request in JSON:
``model``, the folder or file; ``prompts``, token ids of every row; ``texts``; ``count`` of tokens to write;
``trusted``, whether code in the folder may run. Into the second it writes its answer: ``engine`` with its version,
``tokens`` of every row, at most ``count``, and their ``logprobs``; ``lengths`` of the texts in tokens.
"""

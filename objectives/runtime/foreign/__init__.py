"""Scripts that another interpreter runs: engines whose own torch or transformers are not ours.

Nothing here imports anything of ours but :mod:`.json_lines`, which lies beside the script.
"""

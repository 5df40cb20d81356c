"""What is optimised: real language models, compressed, run and measured.

Knows torch and transformers; never imports optuna, mlflow or hydra. The searcher in
:mod:`search` sees only :mod:`objectives.types`, which is free of torch.
"""

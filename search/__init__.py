"""How it is searched: space, study, front, tracking and report.

Knows optuna, mlflow, hydra and pandas; never imports torch, so that ``--help`` and reports start fast.
"""

"""The search: its space, study, front, tracking and report.

This package uses optuna, mlflow, hydra and pandas. It never imports torch, so that ``--help`` and reports start fast.
"""

import objectives as objectives  # keeps old import paths alive, those of this package too

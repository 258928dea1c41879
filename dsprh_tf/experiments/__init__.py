"""The paper's experiments: plans, sweeps of trials, reports."""

"""Networks: one-dimensional residual networks for ECG."""

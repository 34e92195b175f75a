"""What results are worth: metrics, tables, baselines, studies."""

"""The bill: what a study would take and cost, before anything is trained."""

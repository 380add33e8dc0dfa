"""Where things run and where files live: Ray, machines, pools and folders. Knows nothing of mammograms."""

import os

# A thread per core in each of several processes only makes them wait for each other. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

"""What `bench/drafting.py` measures with: the load, the model shapes, the ways to generate, and the bandwidth floor."""

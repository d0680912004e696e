"""What is asked: sweep files, read with the place of every value, and the plan (the DAG of runs) that they make."""

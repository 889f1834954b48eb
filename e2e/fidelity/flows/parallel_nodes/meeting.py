import threading

barrier = threading.Barrier(3, timeout=30)

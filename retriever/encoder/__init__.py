"""What turns texts into vectors and terms: encoders by name, their runtime, threads and workers."""

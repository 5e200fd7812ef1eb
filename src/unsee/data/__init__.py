"""What benchmarks are read with: tables, records, images, and checks of data."""

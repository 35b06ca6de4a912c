"""What people look at in a browser: graphs of kernels as SVG, and the report as one page."""

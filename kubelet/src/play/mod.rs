//! Pods from a file, through the same engine, with no API server.

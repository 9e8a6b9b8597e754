//! Clients of the API server: one for writes, others for watches.

//! Images of containers: names, credentials.

pub mod auth;
pub mod provider;
pub mod reference;

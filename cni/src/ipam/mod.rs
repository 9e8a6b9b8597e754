//! Which address belongs to whom: one small file an address, named by it, in
//! the format of the reference plugin `host-local`
//! (containernetworking/plugins v1.9.1 plugins/ipam/host-local/backend/disk),
//! so that either can take over from the other.

mod range;
mod store;

pub use range::Range;
pub use store::{Reservation, Store, StoreError};

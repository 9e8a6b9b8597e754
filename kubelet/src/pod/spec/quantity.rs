//! Amounts out of a container's lists.

use crate::quantity::Amount;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// One resource of a list, if it is there and readable.
#[must_use]
pub fn amount(list: Option<&BTreeMap<String, Quantity>>, resource: &str) -> Option<Amount> {
    list.and_then(|l| l.get(resource))
        .and_then(|q| Amount::parse(&q.0))
}

//! Query strings: some parameters come more than once.

use super::Refusal;
use axum::extract::Query;
use axum::http::{StatusCode, Uri};

/// Parameters in their order.
#[derive(Debug, Default, Clone)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    pub fn of(uri: &Uri) -> Result<Params, Refusal> {
        let parsed = Query::<Vec<(String, String)>>::try_from_uri(uri);
        parsed
            .map(|Query(pairs)| Params(pairs))
            .map_err(|e| Refusal(StatusCode::BAD_REQUEST, format!("unreadable query: {e}")))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn all(&self, name: &str) -> Vec<String> {
        let all = self.0.iter().filter(|(key, _)| key == name);
        all.map(|(_, value)| value.clone()).collect()
    }

    /// Stream parameters must be literally `1`, as the kubelet has it.
    pub fn is_one(&self, name: &str) -> bool {
        self.get(name) == Some("1")
    }

    pub fn is_true(&self, name: &str) -> bool {
        matches!(
            self.get(name),
            Some("true" | "1" | "True" | "t" | "T" | "TRUE")
        )
    }
}

//! How a command ended, in the words of the error channel.

use serde_json::json;

/// The end of an exec or attach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It ended well.
    Success,
    /// The process ended with this code.
    Exit(i32),
    /// It could not be done.
    Failed(String),
}

impl Outcome {
    /// What is written for this version of the protocol: since the fourth a
    /// `metav1.Status` (k8s.io/cri-streaming v0.37 pkg/streaming/remotecommand),
    /// before it a sentence, and nothing at all for success.
    pub fn message(&self, version: u8) -> Vec<u8> {
        if version >= 4 {
            return self.status().to_string().into_bytes();
        }
        match self {
            Self::Success => Vec::new(),
            Self::Exit(code) => non_zero(*code).into_bytes(),
            Self::Failed(message) => message.clone().into_bytes(),
        }
    }

    fn status(&self) -> serde_json::Value {
        match self {
            Self::Success => json!({"metadata": {}, "status": "Success"}),
            Self::Exit(code) => json!({
                "metadata": {},
                "status": "Failure",
                "message": non_zero(*code),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failed(message) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("Internal error occurred: {message}"),
                "reason": "InternalError",
                "details": {"causes": [{"message": message}]},
                "code": 500,
            }),
        }
    }
}

fn non_zero(code: i32) -> String {
    format!("command terminated with non-zero exit code: {code}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcome_carries_the_exit_code_as_a_cause() {
        let status = serde_json::from_slice::<serde_json::Value>(&Outcome::Exit(3).message(5));
        let status = status.unwrap();
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0]["message"], "3");
    }

    #[test]
    fn outcome_is_a_sentence_before_version_four() {
        assert_eq!(Outcome::Success.message(1), b"");
        assert_eq!(
            Outcome::Failed("no such container".into()).message(3),
            b"no such container"
        );
    }
}

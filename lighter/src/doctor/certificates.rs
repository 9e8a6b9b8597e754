//! How long certificates are good for.

use super::{Finding, Place};
use kubelet::api::validity_of_file;
use kubelet::join::files::current_identity;
use std::path::Path;

const DAY: i64 = 24 * 3600;

pub fn findings(place: &Place) -> Vec<Finding> {
    let config = place.config();
    let now = kubelet::api::now();
    let mut all = Vec::new();
    let again = match place.bootstrap_kubeconfig.exists() {
        true => "the agent asks for another by itself; its log says what keeps it from that",
        false => {
            "lighter reset, then lighter join; a certificate that is over can't ask for the next"
        }
    };
    let files = [
        (
            "client-cert",
            Some(current_identity(&place.pki, "client")),
            again,
        ),
        (
            "serving-cert",
            Some(current_identity(&place.pki, "server")),
            "kubectl get csr, then kubectl certificate approve",
        ),
        (
            "cluster-ca",
            config.client_ca_file,
            "the cluster's CA is to be renewed on its control plane",
        ),
    ];
    for (check, file, remedy) in files {
        let Some(file) = file.filter(|f| f.exists()) else {
            continue;
        };
        all.push(judge(check, &file, validity_of_file(&file), (now, remedy)));
    }
    all
}

fn judge(
    check: &'static str,
    file: &Path,
    validity: Option<(i64, i64)>,
    (now, remedy): (i64, &str),
) -> Finding {
    let file = file.display();
    let Some((from, until)) = validity else {
        let seen = format!("{file} is no certificate");
        return Finding::error(check, [&seen, "TLS does not work with it", remedy]);
    };
    let days = (until - now) / DAY;
    let share_left = (until - now) * 100 / (until - from).max(1);
    if now < from {
        let seen = format!("{file} is not valid yet");
        return Finding::error(
            check,
            [
                &seen,
                "the clock of this machine is behind",
                "set the clock",
            ],
        );
    }
    if until <= now {
        let seen = format!("{file} ended {} days ago", -days);
        return Finding::error(check, [&seen, "the other side refuses it", remedy]);
    }
    // Renewal comes at the latest with a tenth left.
    if share_left < 8 {
        let seen = format!("{file} ends in {days} days");
        return Finding::warning(check, [&seen, "it should have been renewed", remedy]);
    }
    Finding::ok(check, format!("{file}, {days} days left"))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn certificate_is_judged_by_the_clock_and_by_its_life() {
        let at = |now| judge("c", Path::new("/x"), Some((1000, 101_000)), (now, "r")).verdict;
        assert_eq!(at(2000), Verdict::Ok);
        assert_eq!(at(97_000), Verdict::Warning);
        assert_eq!(at(101_000), Verdict::Error);
        assert_eq!(at(10), Verdict::Error);
        let none = judge("c", Path::new("/x"), None, (0, "r"));
        assert_eq!((none.verdict, none.remedy.as_str()), (Verdict::Error, "r"));
    }
}

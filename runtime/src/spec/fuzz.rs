//! What an image says of its users, damaged: nobody gets an id or a home that
//! Kubernetes does not know.

use super::user::{Accounts, fuzzed};
use fuzz::Fuzz;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:w:/var/www:/bin/sh\n\
    4294967296:x:0:0::/:/bin/sh\n0x10:x:1:1::/:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n";
const GROUP: &str = "root:x:0:\nadm:x:4:www,root\nin-image:x:50000:u\n";

#[test]
fn accounts_of_a_stranger_give_nobody_a_strange_identity() {
    let words = [
        ":",
        "\n",
        ",",
        "-1",
        "4294967295",
        "2147483648",
        "00",
        "+",
        "0x0",
        "\t",
        "\0",
        "root",
    ];
    Fuzz::new("passwd and group", [PASSWD, GROUP])
        .words(&words)
        .text(|text| {
            for (passwd, group) in [(text, GROUP), (PASSWD, text)] {
                let accounts = Accounts::parse(passwd, group);
                for user in [
                    "",
                    "root",
                    "www",
                    "u",
                    "0",
                    "33",
                    "1000",
                    "4294967296",
                    "0x10",
                ] {
                    fuzzed(user, &accounts);
                }
            }
        });
}

#[test]
fn user_of_a_stranger_is_within_range_or_refused() {
    let accounts = Accounts::parse(PASSWD, GROUP);
    Fuzz::new("image user", ["root", "www:adm", "1000:1000", "0x10", ""])
        .words(&[":", "-", "+", "0", "4294967296", "0x", "\n", "www"])
        .text(|user| fuzzed(user, &accounts));
}

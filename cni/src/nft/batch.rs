//! One atomic change of the packet filter.

use super::expr::Rule;
use super::message::{Attributes, Messages, NLM_F_APPEND, NLM_F_CREATE};
use super::socket;
use super::uapi::*;
use std::io;

/// When a chain sees packets.
#[derive(Debug, Clone, Copy)]
pub struct Hook {
    /// `nat` or `filter`.
    pub kind: &'static str,
    /// `NF_INET_*`.
    pub number: u32,
    /// Lower is earlier; -100 is where iptables has its DNAT, 100 its SNAT.
    pub priority: i32,
}

/// A set, or with data a map. Types are those that `nft` shows
/// (nftables 1.1 include/datatype.h); the kernel cares for the lengths alone.
#[derive(Debug, Clone, Copy)]
pub struct SetSpec {
    /// Name within the table.
    pub name: &'static str,
    /// Type number of the key.
    pub key_type: u32,
    /// Its length in bytes.
    pub key_len: u32,
    /// Type number and length of a map's value.
    pub data: Option<(u32, u32)>,
}

/// A key, and a value if in a map, to be put into a set or taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The set's name.
    pub set: &'static str,
    /// Key.
    pub key: Vec<u8>,
    /// Value.
    pub data: Option<Vec<u8>>,
}

/// Changes to one table, applied together or not at all.
#[derive(Debug, Clone)]
pub struct Batch {
    table: String,
    messages: Messages,
    next_set: u32,
}

impl Batch {
    /// No change yet.
    pub fn new(table: &str) -> Self {
        let mut messages = Messages::default();
        messages.begin();
        Self {
            table: table.to_owned(),
            messages,
            next_set: 0,
        }
    }

    /// Makes the table unless it is there.
    pub fn add_table(&mut self) {
        self.push(NFT_MSG_NEWTABLE, NLM_F_CREATE, |a, table| {
            a.text(NFTA_TABLE_NAME, table).number(NFTA_TABLE_FLAGS, 0);
        });
    }

    /// Removes the table with all that is in it.
    pub fn delete_table(&mut self) {
        self.push(NFT_MSG_DELTABLE, 0, |a, table| {
            a.text(NFTA_TABLE_NAME, table);
        });
    }

    /// Makes a chain unless it is there, and empties it.
    pub fn add_chain(&mut self, name: &str, hook: Option<Hook>) {
        self.push(NFT_MSG_NEWCHAIN, NLM_F_CREATE, |a, table| {
            a.text(NFTA_CHAIN_TABLE, table).text(NFTA_CHAIN_NAME, name);
            if let Some(hook) = hook {
                a.nest(NFTA_CHAIN_HOOK, |a| {
                    a.number(NFTA_HOOK_HOOKNUM, hook.number)
                        .number(NFTA_HOOK_PRIORITY, hook.priority.cast_unsigned());
                });
                a.number(NFTA_CHAIN_POLICY, NF_ACCEPT.cast_unsigned());
                a.text(NFTA_CHAIN_TYPE, hook.kind);
            }
        });
        self.push(NFT_MSG_DELRULE, 0, |a, table| {
            a.text(NFTA_RULE_TABLE, table).text(NFTA_RULE_CHAIN, name);
        });
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, chain: &str, rule: &Rule) {
        self.push(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, |a, table| {
            a.text(NFTA_RULE_TABLE, table).text(NFTA_RULE_CHAIN, chain);
            a.nest(NFTA_RULE_EXPRESSIONS, |a| {
                for expr in &rule.0 {
                    a.nest(NFTA_LIST_ELEM, |a| expr.encode(a));
                }
            });
        });
    }

    /// Makes a set unless it is there; its elements stay.
    pub fn add_set(&mut self, set: &SetSpec) {
        self.next_set += 1;
        let id = self.next_set;
        let map = if set.data.is_some() { NFT_SET_MAP } else { 0 };
        self.push(NFT_MSG_NEWSET, NLM_F_CREATE, |a, table| {
            a.text(NFTA_SET_TABLE, table)
                .text(NFTA_SET_NAME, set.name)
                .number(NFTA_SET_FLAGS, map)
                .number(NFTA_SET_KEY_TYPE, set.key_type)
                .number(NFTA_SET_KEY_LEN, set.key_len);
            if let Some((data_type, data_len)) = set.data {
                a.number(NFTA_SET_DATA_TYPE, data_type)
                    .number(NFTA_SET_DATA_LEN, data_len);
            }
            a.number(NFTA_SET_ID, id);
        });
    }

    /// Takes all elements out of a set.
    pub fn flush_set(&mut self, name: &str) {
        self.push(NFT_MSG_DELSETELEM, 0, |a, table| {
            a.text(NFTA_SET_ELEM_LIST_TABLE, table)
                .text(NFTA_SET_ELEM_LIST_SET, name);
        });
    }

    /// Puts an element in. A map refuses a key that it has with another value.
    pub fn add_element(&mut self, element: &Element) {
        self.element(NFT_MSG_NEWSETELEM, NLM_F_CREATE, element);
    }

    /// Takes an element out; the batch fails if it isn't there.
    pub fn delete_element(&mut self, element: &Element) {
        self.element(NFT_MSG_DELSETELEM, 0, element);
    }

    /// Applies everything at once. Blocks, about 0.3 ms.
    pub fn commit(self) -> io::Result<()> {
        socket::commit(self.messages)
    }

    /// The messages so far.
    #[cfg(test)]
    pub fn bytes(&self) -> &[u8] {
        self.messages.bytes()
    }

    fn element(&mut self, kind: u16, flags: u16, element: &Element) {
        self.push(kind, flags, |a, table| {
            a.text(NFTA_SET_ELEM_LIST_TABLE, table)
                .text(NFTA_SET_ELEM_LIST_SET, element.set);
            a.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |a| {
                a.nest(NFTA_LIST_ELEM, |a| {
                    a.nest(NFTA_SET_ELEM_KEY, |a| {
                        a.bytes(NFTA_DATA_VALUE, &element.key);
                    });
                    if let Some(data) = &element.data {
                        a.nest(NFTA_SET_ELEM_DATA, |a| {
                            a.bytes(NFTA_DATA_VALUE, data);
                        });
                    }
                });
            });
        });
    }

    fn push(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Attributes<'_>, &str)) {
        let table = &self.table;
        self.messages
            .push((NFNL_SUBSYS_NFTABLES, kind), flags, NFPROTO_INET, |a| {
                fill(a, table);
            });
    }
}

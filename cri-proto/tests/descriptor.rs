//! The .proto text is our own: held here, field by field, against what
//! k8s.io/cri-api v0.37.2 publishes. `e2e/tests` makes the list afresh from the
//! Go module and holds it against the file.

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
};
use std::collections::BTreeSet;

#[test]
fn proto_equals_the_published_descriptor() {
    let published: BTreeSet<String> = include_str!("cri-api-v0.37.2.txt")
        .lines()
        .map(str::to_owned)
        .collect();
    let set = protox::compile(["proto/api.proto"], ["proto"]).expect("proto/api.proto compiles");
    let ours = facts(&set.file[0]);
    let missing: Vec<_> = published.difference(&ours).collect();
    let extra: Vec<_> = ours.difference(&published).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "missing: {missing:#?}\nnot published: {extra:#?}"
    );
    assert!(
        ours.len() > 700,
        "the list is suspiciously short: {}",
        ours.len()
    );
}

fn facts(file: &FileDescriptorProto) -> BTreeSet<String> {
    let package = file.package();
    let mut out = BTreeSet::from([format!("package {package}")]);
    for service in &file.service {
        for m in &service.method {
            let kind = if m.server_streaming() {
                "stream"
            } else {
                "unary"
            };
            out.insert(format!(
                "rpc {package}.{}.{} {kind} {} {}",
                service.name(),
                m.name(),
                m.input_type().trim_start_matches('.'),
                m.output_type().trim_start_matches('.')
            ));
        }
    }
    file.enum_type
        .iter()
        .for_each(|e| enumeration(package, e, &mut out));
    file.message_type
        .iter()
        .for_each(|m| message(package, m, &mut out));
    out
}

fn enumeration(scope: &str, e: &EnumDescriptorProto, out: &mut BTreeSet<String>) {
    out.insert(format!("enum {scope}.{}", e.name()));
    for v in &e.value {
        out.insert(format!(
            "value {scope}.{}.{} {}",
            e.name(),
            v.name(),
            v.number()
        ));
    }
}

fn message(scope: &str, m: &DescriptorProto, out: &mut BTreeSet<String>) {
    let full = format!("{scope}.{}", m.name());
    out.insert(format!("message {full}"));
    for f in &m.field {
        let entry = m.nested_type.iter().find(|n| {
            n.options.as_ref().is_some_and(|o| o.map_entry())
                && f.type_name().ends_with(&format!("{full}.{}", n.name()))
        });
        let (label, kind) = match entry {
            Some(n) => (
                "singular".into(),
                format!("map<{},{}>", kind(&n.field[0]), kind(&n.field[1])),
            ),
            None => (label(m, f), kind(f)),
        };
        out.insert(format!(
            "field {full}.{} {} {label} {kind}",
            f.name(),
            f.number()
        ));
    }
    m.enum_type.iter().for_each(|e| enumeration(&full, e, out));
    let nested = m.nested_type.iter();
    nested
        .filter(|n| !n.options.as_ref().is_some_and(|o| o.map_entry()))
        .for_each(|n| message(&full, n, out));
}

fn label(m: &DescriptorProto, f: &FieldDescriptorProto) -> String {
    match (f.label(), f.oneof_index) {
        (Label::Repeated, _) => "repeated".into(),
        _ if f.proto3_optional() => "optional".into(),
        (_, Some(i)) => format!("oneof:{}", m.oneof_decl[i as usize].name()),
        _ => "singular".into(),
    }
}

fn kind(f: &FieldDescriptorProto) -> String {
    match f.r#type() {
        Type::Message | Type::Enum => f.type_name().trim_start_matches('.').to_owned(),
        t => format!("{t:?}").to_lowercase(),
    }
}

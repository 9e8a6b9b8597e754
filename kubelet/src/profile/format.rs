//! `profile.proto`, gzipped: github.com/google/pprof/proto/profile.proto.

use super::Stacks;
use super::program::Program;
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;
use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// When samples were taken, and how far apart.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    pub began: SystemTime,
    pub length: Duration,
    pub period: Duration,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Profile {
    #[prost(message, repeated, tag = "1")]
    pub sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    pub sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    pub mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    pub location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    pub function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    pub string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    pub time_nanos: i64,
    #[prost(int64, tag = "10")]
    pub duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    pub period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    pub period: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct ValueType {
    #[prost(int64, tag = "1")]
    pub kind: i64,
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    pub location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    pub value: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Mapping {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub memory_start: u64,
    #[prost(uint64, tag = "3")]
    pub memory_limit: u64,
    #[prost(uint64, tag = "4")]
    pub file_offset: u64,
    #[prost(int64, tag = "5")]
    pub filename: i64,
    #[prost(int64, tag = "6")]
    pub build_id: i64,
    #[prost(bool, tag = "7")]
    pub has_functions: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Location {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub mapping_id: u64,
    #[prost(uint64, tag = "3")]
    pub address: u64,
    #[prost(message, repeated, tag = "4")]
    pub line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Line {
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Function {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(int64, tag = "2")]
    pub name: i64,
    #[prost(int64, tag = "3")]
    pub system_name: i64,
}

/// The only mapping: the program is one static file.
const MAPPING: u64 = 1;

/// A profile of these stacks. Names stay as the linker has them: pprof makes them readable.
pub fn written(stacks: &Stacks, program: &Program, taken: Taken) -> Vec<u8> {
    let profile = Tables::new(program).profile(stacks, taken);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    // Into memory: neither can fail.
    drop(gzip.write_all(&profile.encode_to_vec()));
    gzip.finish().unwrap_or_default()
}

/// What samples refer to by number.
struct Tables<'a> {
    program: &'a Program,
    strings: Vec<String>,
    string_ids: HashMap<String, i64>,
    locations: Vec<Location>,
    location_ids: HashMap<u64, u64>,
    functions: Vec<Function>,
    function_ids: HashMap<i64, u64>,
}

impl<'a> Tables<'a> {
    fn new(program: &'a Program) -> Tables<'a> {
        Tables {
            program,
            // The first must be empty.
            strings: vec![String::new()],
            string_ids: HashMap::from([(String::new(), 0)]),
            locations: Vec::new(),
            location_ids: HashMap::new(),
            functions: Vec::new(),
            function_ids: HashMap::new(),
        }
    }

    fn profile(mut self, stacks: &Stacks, taken: Taken) -> Profile {
        let nanos = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
        let period = nanos(taken.period);
        let samples = self.value_type("samples", "count");
        let cpu = self.value_type("cpu", "nanoseconds");
        let sample = stacks
            .iter()
            .map(|(stack, count)| Sample {
                location_id: stack.iter().map(|&a| self.location(a)).collect(),
                value: vec![*count, count.saturating_mul(period)],
            })
            .collect();
        let began = taken.began.duration_since(UNIX_EPOCH).unwrap_or_default();
        Profile {
            sample_type: vec![samples, cpu],
            sample,
            mapping: vec![self.mapping()],
            time_nanos: nanos(began),
            duration_nanos: nanos(taken.length),
            period_type: Some(cpu),
            period,
            location: self.locations,
            function: self.functions,
            string_table: self.strings,
        }
    }

    fn mapping(&mut self) -> Mapping {
        let program = self.program;
        Mapping {
            id: MAPPING,
            memory_start: program.text.addresses.start,
            memory_limit: program.text.addresses.end,
            file_offset: program.text_offset(),
            filename: self.string(&program.path.to_string_lossy()),
            build_id: self.string(&program.build_id),
            has_functions: program.has_names(),
        }
    }

    fn value_type(&mut self, kind: &str, unit: &str) -> ValueType {
        ValueType {
            kind: self.string(kind),
            unit: self.string(unit),
        }
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(id) = self.string_ids.get(text) {
            return *id;
        }
        let id = self.strings.len() as i64;
        self.strings.push(text.to_owned());
        self.string_ids.insert(text.to_owned(), id);
        id
    }

    fn location(&mut self, address: u64) -> u64 {
        if let Some(id) = self.location_ids.get(&address) {
            return *id;
        }
        let id = self.locations.len() as u64 + 1;
        let inside = self.program.text.addresses.contains(&address);
        let function = self.program.name(address).map(str::to_owned);
        let line = function.map(|name| Line {
            function_id: self.function(&name),
        });
        self.locations.push(Location {
            id,
            // Of the kernel's own code in every process there is no file.
            mapping_id: if inside { MAPPING } else { 0 },
            address,
            line: line.into_iter().collect(),
        });
        self.location_ids.insert(address, id);
        id
    }

    fn function(&mut self, name: &str) -> u64 {
        let name = self.string(name);
        if let Some(id) = self.function_ids.get(&name) {
            return *id;
        }
        let id = self.functions.len() as u64 + 1;
        self.functions.push(Function {
            id,
            name,
            system_name: name,
        });
        self.function_ids.insert(name, id);
        id
    }
}

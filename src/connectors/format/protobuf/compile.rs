//! Message descriptors from what a statement or a registry gives: text of .proto files, or compiled descriptors.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use prost_reflect::{DescriptorPool, FileDescriptor, MessageDescriptor};
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use crate::error::{Error, Result, SqlState};

/// The name of a file that has none.
const MAIN: &str = "schema.proto";

fn wrong(why: impl std::fmt::Display) -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("not a Protobuf schema: {why}"))
}

/// Files by the names that they are imported by.
struct Given(Vec<(String, String)>);

impl FileResolver for Given {
    fn open_file(&self, name: &str) -> std::result::Result<File, protox::Error> {
        match self.0.iter().find(|(n, _)| n == name) {
            Some((_, text)) => file(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// A file: text, or a descriptor in base64, which is how some clients register theirs.
fn file(name: &str, text: &str) -> std::result::Result<File, protox::Error> {
    if let Ok(bytes) = BASE64_STANDARD.decode(text.trim())
        && let Ok(mut descriptor) = prost_reflect::prost_types::FileDescriptorProto::decode_from(&bytes)
    {
        descriptor.name = Some(name.to_string());
        return Ok(File::from_file_descriptor_proto(descriptor));
    }
    File::from_source(name, text)
}

/// Decoding by the trait of the version that descriptors are of.
trait DecodeFrom: Sized {
    fn decode_from(bytes: &[u8]) -> std::result::Result<Self, prost_reflect::prost::DecodeError>;
}

impl<T: prost_reflect::prost::Message + Default> DecodeFrom for T {
    fn decode_from(bytes: &[u8]) -> std::result::Result<Self, prost_reflect::prost::DecodeError> {
        T::decode(bytes)
    }
}

/// Compiles a file, with those that it imports.
///
/// # Errors
/// 22023: what is wrong, and where.
pub fn compile(text: &str, references: &[(String, String)]) -> Result<FileDescriptor> {
    let mut files = references.to_vec();
    files.push((MAIN.to_string(), text.to_string()));
    let mut resolver = ChainFileResolver::new();
    resolver.add(Given(files));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.open_file(MAIN).map_err(wrong)?;
    let file = compiler.descriptor_pool().get_file_by_name(MAIN);
    file.ok_or_else(|| wrong("it has no file"))
}

/// The messages of a descriptor set: the file that `protoc --include_imports --descriptor_set_out` writes, or its
/// bytes in hexadecimal digits behind `\x`.
///
/// # Errors
/// 58030 when the file cannot be read; 22023 when it is no descriptor set.
pub fn descriptor_set(option: &str) -> Result<DescriptorPool> {
    let bytes = match option.strip_prefix("\\x") {
        Some(digits) => hex::decode(digits).map_err(wrong)?,
        None => std::fs::read(option).map_err(|e| {
            Error::new(SqlState::IO_ERROR, format!("the descriptor file \"{option}\" cannot be read: {e}"))
        })?,
    };
    DescriptorPool::decode(bytes.as_slice()).map_err(wrong)
}

/// A message by its full name; without one, the only one of the outermost.
///
/// # Errors
/// 22023 when it is not there, or several are.
pub fn message(
    messages: impl Iterator<Item = MessageDescriptor>,
    name: Option<&str>,
) -> Result<MessageDescriptor> {
    let messages: Vec<MessageDescriptor> = messages.collect();
    let found = match name {
        Some(name) => messages.iter().find(|m| m.full_name() == name),
        None => messages.first().filter(|_| messages.len() == 1),
    };
    found.cloned().ok_or_else(|| {
        let known: Vec<&str> = messages.iter().map(MessageDescriptor::full_name).collect();
        let message = match name {
            Some(name) => format!("the schema has no message \"{name}\""),
            None => "the option \"message\" must say which message of the schema the records are".to_string(),
        };
        Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
            .with_hint(format!("Messages: {}.", known.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_compiled_with_what_it_imports() {
        let money = "syntax = 'proto3'; package m; message Money { int64 units = 1; }";
        let order = "syntax = 'proto3'; package a.b; import 'money.proto'; import 'google/protobuf/timestamp.proto';
            message Order { m.Money price = 1; google.protobuf.Timestamp at = 2; message Line { int32 n = 1; } }";
        let file = compile(order, &[("money.proto".to_string(), money.to_string())]).unwrap();
        assert_eq!(message(file.messages(), None).unwrap().full_name(), "a.b.Order");
        assert!(compile(order, &[]).unwrap_err().message.contains("money.proto"));
        let error = message(file.messages(), Some("a.b.Bill")).unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("Messages: a.b.Order."));
        assert!(compile("message {", &[]).is_err());
    }

    #[test]
    fn descriptors_are_taken_as_they_are() {
        let file = compile("syntax = 'proto3'; message A { int32 x = 1; }", &[]).unwrap();
        let set = file.parent_pool().encode_to_vec();
        let pool = descriptor_set(&format!("\\x{}", hex::encode(&set))).unwrap();
        assert!(pool.get_message_by_name("A").is_some());
        let alone = BASE64_STANDARD.encode(file.encode_to_vec());
        assert!(compile(&alone, &[]).unwrap().messages().any(|m| m.full_name() == "A"));
        assert_eq!(descriptor_set("/nowhere/a.desc").unwrap_err().sqlstate, SqlState::IO_ERROR);
    }
}

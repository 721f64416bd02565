//! The notation in which messages are declared.

/// Declares a message (or record) and the structs nested in it, each once.
///
/// ```text
/// schema! {
///     /// Doc.
///     message Name = KEY, versions MIN..=MAX, flexible FIRST {   // or: flexible never
///         /// Doc.
///         field: Type [since(1).until(3).nullable_since(2).tag(0).ignorable()] = default,
///     }
///     /// Doc.
///     struct Nested { ... }
/// }
/// ```
///
/// Types: `bool`, `i8`, `i16`, `u16`, `i32`, `u32`, `i64`, `f64`, `Uuid`, `String`, `Bytes`, `Vec` of any,
/// a nested struct, and `Option` of the last four. The brackets are calls on
/// [`FieldSpec`](crate::FieldSpec) and may be left out, as may the default (the type's own).
/// Each struct also gets `unknown_tags`, what a newer release added.
///
/// A field that a version lacks takes its default when read. When written it must hold its default, or
/// be `ignorable`.
#[macro_export]
macro_rules! schema {
    (
        $( #[$doc:meta] )*
        message $name:ident = $key:expr, versions $min:literal ..= $max:literal, flexible $flexible:tt
        { $($fields:tt)* }
        $($rest:tt)*
    ) => {
        $crate::schema! { @struct [$( #[$doc] )*] $name { $($fields)* } }

        impl $crate::Message for $name {
            const NAME: &'static str = stringify!($name);
            const KEY: i16 = $key;
            const VERSION_MIN: i16 = $min;
            const VERSION_MAX: i16 = $max;
            const FLEXIBLE_SINCE: i16 = $crate::schema!(@flexible $flexible);
        }

        $crate::schema! { $($rest)* }
    };

    ( $( #[$doc:meta] )* struct $name:ident { $($fields:tt)* } $($rest:tt)* ) => {
        $crate::schema! { @struct [$( #[$doc] )*] $name { $($fields)* } }
        $crate::schema! { $($rest)* }
    };

    () => {};

    (@flexible never) => { $crate::NEVER };
    (@flexible $first:literal) => { $first };

    (@default) => { ::core::default::Default::default() };
    (@default $default:expr) => { $default };

    (
        @struct [$( #[$doc:meta] )*] $name:ident {
            $(
                $( #[$field_doc:meta] )*
                $field:ident : $type:ty $( [ $($spec:tt)+ ] )? $( = $default:expr )?
            ),* $(,)?
        }
    ) => {
        $( #[$doc] )*
        #[derive(Clone, PartialEq, Debug)]
        pub struct $name {
            $( $( #[$field_doc] )* pub $field: $type, )*
            /// Tagged fields of newer releases.
            pub unknown_tags: $crate::UnknownTags,
        }

        impl ::core::default::Default for $name {
            fn default() -> Self {
                Self {
                    $( $field: $crate::schema!(@default $($default)?), )*
                    unknown_tags: ::core::default::Default::default(),
                }
            }
        }

        #[allow(
            unused_variables,
            unused_mut,
            clippy::float_cmp,
            reason = "a struct may have no fields, no tags, or rates that are compared with their default"
        )]
        impl $crate::Field for $name {
            fn len_min(encoding: $crate::Encoding) -> usize {
                let mut len = usize::from(encoding.flexible); // The count of tagged fields.
                $( {
                    const SPEC: $crate::FieldSpec = $crate::FieldSpec::ALWAYS $( . $($spec)+ )?;
                    if SPEC.is_placed_in(encoding.version) {
                        len += <$type as $crate::Field>::len_min(encoding);
                    }
                } )*
                len
            }

            fn write(
                &self,
                encoding: $crate::Encoding,
                out: &mut $crate::__private::Vec<u8>,
            ) -> ::core::result::Result<(), $crate::EncodeError> {
                let default = Self::default();
                let version = encoding.version;
                let mut tags = $crate::__private::Vec::new();
                $( {
                    const SPEC: $crate::FieldSpec = $crate::FieldSpec::ALWAYS $( . $($spec)+ )?;
                    const PLACE: &str = concat!(stringify!($name), ".", stringify!($field));
                    let tag = SPEC.tag_number();
                    if !SPEC.exists_in(version) || (tag.is_some() && !encoding.flexible) {
                        if !SPEC.is_ignorable() && self.$field != default.$field {
                            return Err($crate::EncodeError::FieldNotInVersion { field: PLACE, version });
                        }
                    } else if $crate::Field::is_null(&self.$field) && !SPEC.is_nullable_in(version) {
                        return Err($crate::EncodeError::Null { field: PLACE, version });
                    } else if let Some(tag) = tag {
                        if self.$field != default.$field {
                            let mut value = $crate::__private::Vec::new();
                            $crate::Field::write(&self.$field, encoding, &mut value)?;
                            tags.push((tag, value));
                        }
                    } else {
                        $crate::Field::write(&self.$field, encoding, out)?;
                    }
                } )*
                if encoding.flexible {
                    $crate::write_tags(tags, &self.unknown_tags, out);
                }
                Ok(())
            }

            fn read(
                encoding: $crate::Encoding,
                reader: &mut $crate::Reader<'_>,
            ) -> ::core::result::Result<Self, $crate::DecodeError> {
                let mut message = Self::default();
                let version = encoding.version;
                $( {
                    const SPEC: $crate::FieldSpec = $crate::FieldSpec::ALWAYS $( . $($spec)+ )?;
                    if SPEC.is_placed_in(version) {
                        message.$field = $crate::Field::read(encoding, reader)
                            .and_then(|value| $crate::null_checked(value, SPEC, version))
                            .map_err(|e| e.within(concat!(stringify!($name), ".", stringify!($field))))?;
                    }
                } )*
                if encoding.flexible {
                    message.unknown_tags = $crate::read_tags(reader, |tag, value| {
                        $( {
                            const SPEC: $crate::FieldSpec = $crate::FieldSpec::ALWAYS $( . $($spec)+ )?;
                            if SPEC.tag_number() == Some(tag) {
                                if !SPEC.exists_in(version) {
                                    return Err($crate::Problem::ForeignTag(tag).into());
                                }
                                message.$field = $crate::Field::read(encoding, value)
                                    .and_then(|value| $crate::null_checked(value, SPEC, version))
                                    .map_err(|e| {
                                        e.within(concat!(stringify!($name), ".", stringify!($field)))
                                    })?;
                                return Ok(true);
                            }
                        } )*
                        Ok(false)
                    })
                    .map_err(|e| e.within(stringify!($name)))?;
                }
                Ok(message)
            }

            fn example(version: i16, draw: &mut dyn FnMut() -> u64) -> Self {
                let mut message = Self::default();
                $( {
                    const SPEC: $crate::FieldSpec = $crate::FieldSpec::ALWAYS $( . $($spec)+ )?;
                    if SPEC.exists_in(version) {
                        let value = <$type as $crate::Field>::example(version, draw);
                        if SPEC.is_nullable_in(version) || !$crate::Field::is_null(&value) {
                            message.$field = value;
                        }
                    }
                } )*
                message
            }
        }

        impl $crate::Nullable for $name {
            fn null_len(_: $crate::Encoding) -> usize {
                1
            }

            fn write_null(_: $crate::Encoding, out: &mut $crate::__private::Vec<u8>) {
                out.push(0xff); // -1
            }

            fn write_some(
                &self,
                encoding: $crate::Encoding,
                out: &mut $crate::__private::Vec<u8>,
            ) -> ::core::result::Result<(), $crate::EncodeError> {
                out.push(1);
                $crate::Field::write(self, encoding, out)
            }

            fn read_nullable(
                encoding: $crate::Encoding,
                reader: &mut $crate::Reader<'_>,
            ) -> ::core::result::Result<::core::option::Option<Self>, $crate::DecodeError> {
                let [present] = reader.array()?;
                (present < 0x80).then(|| $crate::Field::read(encoding, reader)).transpose()
            }
        }
    };
}

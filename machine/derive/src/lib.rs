//! `#[derive(Device)]`: turns a plain properties struct into a registered class.
//!
//! The derive generates `PropAccess` (get, set, table of properties), `Default` and the class record, so that a
//! property's name, type, default and description stand in one place. See `rqemu_machine::qom`.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::{format_ident, quote};
use syn::{parse_macro_input, Attribute, DeriveInput, Expr, Field, Ident, LitStr};

/// Joins the doc comment of an item into one line.
fn doc_of(attrs: &[Attribute]) -> String {
    let mut out = String::new();
    for a in attrs.iter().filter(|a| a.path().is_ident("doc")) {
        if let syn::Meta::NameValue(nv) = &a.meta {
            if let Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(s), .. }) = &nv.value {
                let line = s.value();
                let line = line.trim();
                if line.is_empty() {
                    break; // only the first paragraph is the description
                }
                if !out.is_empty() {
                    out.push(' ');
                }
                out.push_str(line);
            }
        }
    }
    out
}

#[derive(Default)]
struct ClassAttr {
    name: Option<LitStr>,
    parent: Option<LitStr>,
    bus: Option<Ident>,
    category: Option<Ident>,
    aliases: Vec<LitStr>,
    desc: Option<LitStr>,
    hotplug: bool,
    internal: bool,
    is_abstract: bool,
    extra: Vec<(LitStr, LitStr)>,
}

fn class_attr(attrs: &[Attribute]) -> syn::Result<ClassAttr> {
    let mut c = ClassAttr::default();
    for a in attrs.iter().filter(|a| a.path().is_ident("class")) {
        a.parse_nested_meta(|m| {
            let key = m.path.get_ident().map(ToString::to_string).unwrap_or_default();
            match key.as_str() {
                "name" => c.name = Some(m.value()?.parse()?),
                "parent" => c.parent = Some(m.value()?.parse()?),
                "bus" => c.bus = Some(m.value()?.parse()?),
                "category" => c.category = Some(m.value()?.parse()?),
                "alias" => c.aliases.push(m.value()?.parse()?),
                "desc" => c.desc = Some(m.value()?.parse()?),
                "hotplug" => c.hotplug = true,
                "internal" => c.internal = true,
                "abstract" => c.is_abstract = true,
                "extra" => {
                    let args;
                    syn::parenthesized!(args in m.input);
                    let name = args.parse()?;
                    args.parse::<syn::Token![,]>()?;
                    c.extra.push((name, args.parse()?));
                }
                _ => return Err(m.error("unknown class attribute")),
            }
            Ok(())
        })?;
    }
    Ok(c)
}

#[derive(Default)]
struct PropAttr {
    name: Option<LitStr>,
    default: Option<Expr>,
    hidden_default: bool,
    object: bool,
}

/// `None`: not a property; `Some(Err(()))`: the embedded base.
fn prop_attr(f: &Field) -> syn::Result<Option<PropAttr>> {
    let mut found = None;
    for a in f.attrs.iter().filter(|a| a.path().is_ident("prop")) {
        let mut p = PropAttr::default();
        if matches!(a.meta, syn::Meta::List(_)) {
            a.parse_nested_meta(|m| {
                let key = m.path.get_ident().map(ToString::to_string).unwrap_or_default();
                match key.as_str() {
                    "name" => p.name = Some(m.value()?.parse()?),
                    "default" => p.default = Some(m.value()?.parse()?),
                    "no_default" => p.hidden_default = true,
                    "object" => p.object = true,
                    _ => return Err(m.error("unknown prop attribute")),
                }
                Ok(())
            })?;
        }
        found = Some(p);
    }
    Ok(found)
}

/// Derives `PropAccess`, `Default` and the class record for a properties struct.
///
/// Struct attribute: `#[class(name = "..", parent = "..", bus = Pci, category = Storage, alias = "..", desc = "..",
/// hotplug, internal, abstract)]`. Without `name` the struct is only a base to embed. Field attributes: `#[base]` on an
/// embedded base struct (its properties are inherited), `#[prop(default = expr, name = "x-y")]` on a property; the
/// property's name is the field's with `-` for `_` unless given; `#[prop(object)]` keeps it out of `info qtree`
/// (QEMU forwards such properties to a child). `#[class(extra("name", "type"))]` lists a child or link that help and
/// introspection show but nobody can set.
#[proc_macro_derive(Device, attributes(class, prop, base))]
pub fn derive_device(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(|e| e.to_compile_error()).into()
}

fn expand(input: &DeriveInput) -> syn::Result<Tokens> {
    let ty = &input.ident;
    let class = class_attr(&input.attrs)?;
    let syn::Data::Struct(data) = &input.data else {
        return Err(syn::Error::new_spanned(ty, "Device can only be derived for structs"));
    };
    let mut infos = Vec::new();
    let mut sets = Vec::new();
    let mut gets = Vec::new();
    let mut inits = Vec::new();
    let mut base: Option<(&Ident, &syn::Type)> = None;
    for f in &data.fields {
        let id = f.ident.as_ref().ok_or_else(|| syn::Error::new_spanned(f, "named fields only"))?;
        let fty = &f.ty;
        if f.attrs.iter().any(|a| a.path().is_ident("base")) {
            base = Some((id, fty));
            inits.push(quote!(#id: ::core::default::Default::default()));
            continue;
        }
        let Some(p) = prop_attr(f)? else {
            inits.push(quote!(#id: ::core::default::Default::default()));
            continue;
        };
        let name = p.name.map_or_else(|| id.to_string().replace('_', "-"), |l| l.value());
        let doc = doc_of(&f.attrs);
        let dflt = match &p.default {
            Some(e) => quote!(::core::convert::Into::into(#e)),
            None => quote!(::core::default::Default::default()),
        };
        let show = !p.hidden_default;
        let qdev = !p.object;
        inits.push(quote!(#id: #dflt));
        infos.push(quote!(crate::qom::PropInfo {
            name: #name,
            ty: <#fty as crate::qom::PropValue>::TYPE,
            desc: #doc,
            qdev: #qdev,
            default: {
                fn d() -> ::core::option::Option<::serde_json::Value> {
                    let v: #fty = #dflt;
                    if #show { crate::qom::PropValue::default_value(&v) } else { None }
                }
                d
            },
        }));
        sets.push(
            quote!(#name => { self.#id = crate::qom::PropValue::from_input(owner, name, input)?; Ok(true) }),
        );
        gets.push(quote!(#name => ::core::option::Option::Some(crate::qom::PropGet {
            value: crate::qom::PropValue::to_value(&self.#id),
            text: crate::qom::PropValue::to_qtree(&self.#id),
        })));
    }
    let (base_set, base_get, base_props) = match base {
        Some((id, bty)) => (
            quote!(crate::qom::PropAccess::set_prop(&mut self.#id, owner, name, input)),
            quote!(crate::qom::PropAccess::get_prop(&self.#id, name)),
            quote!(::core::option::Option::Some(<#bty as crate::qom::PropStruct>::PROPS)),
        ),
        None => {
            (quote!(Ok(false)), quote!(::core::option::Option::None), quote!(::core::option::Option::None))
        }
    };
    let n = infos.len();
    let statics = format_ident!("__PROPS_{}", ty);
    let class_impl = class_impl(ty, &class, input)?;
    Ok(quote! {
        impl ::core::default::Default for #ty {
            fn default() -> Self { Self { #(#inits),* } }
        }
        #[doc(hidden)]
        #[allow(non_upper_case_globals)]
        static #statics: [crate::qom::PropInfo; #n] = [#(#infos),*];
        impl crate::qom::PropStruct for #ty {
            const PROPS: &'static crate::qom::PropTable =
                &crate::qom::PropTable { own: &#statics, base: #base_props };
        }
        impl crate::qom::PropAccess for #ty {
            fn set_prop(&mut self, owner: &str, name: &str, input: &crate::qom::PropInput<'_>)
                -> crate::QResult<bool> {
                match name { #(#sets,)* _ => #base_set }
            }
            fn get_prop(&self, name: &str) -> ::core::option::Option<crate::qom::PropGet> {
                match name { #(#gets,)* _ => #base_get }
            }
        }
        #class_impl
    })
}

fn class_impl(ty: &Ident, c: &ClassAttr, input: &DeriveInput) -> syn::Result<Tokens> {
    let Some(name) = &c.name else { return Ok(quote!()) };
    let parent = c.parent.clone().ok_or_else(|| syn::Error::new_spanned(ty, "class needs a parent"))?;
    let bus = match &c.bus {
        Some(b) => quote!(::core::option::Option::Some(crate::device::BusKind::#b)),
        None => quote!(::core::option::Option::None),
    };
    let category = c.category.clone().unwrap_or_else(|| format_ident!("Uncategorized"));
    let desc = c.desc.as_ref().map_or(String::new(), LitStr::value);
    let _ = input;
    let aliases = &c.aliases;
    let extra = c.extra.iter().map(|(n, t)| quote!((#n, #t)));
    let (hot, user, abs) = (c.hotplug, !c.internal && !c.is_abstract, c.is_abstract);
    let create = if c.is_abstract {
        quote!(::core::option::Option::None)
    } else {
        quote!(::core::option::Option::Some(|| ::std::boxed::Box::new(<#ty as ::core::default::Default>::default())))
    };
    Ok(quote! {
        impl crate::qom::Classed for #ty {
            const CLASS: &'static crate::qom::ClassInfo = &crate::qom::ClassInfo {
                name: #name,
                parent: ::core::option::Option::Some(#parent),
                is_abstract: #abs,
                desc: #desc,
                category: crate::qom::Category::#category,
                bus: #bus,
                aliases: &[#(#aliases),*],
                user_creatable: #user,
                hotpluggable: #hot,
                props: <#ty as crate::qom::PropStruct>::PROPS,
                extra: &[#(#extra),*],
                create: #create,
            };
        }
    })
}

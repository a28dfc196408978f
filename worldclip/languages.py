"""One table for the four code systems of the recipe: Wikipedia, language identifier (LID), WordNet, BCP 47.

The metadata has one list of concepts a language. A list bears its Wikipedia code as dumps write it (`zh_yue`). Texts
reach it through the label that the LID model (fastText's lid.176) gives them: `metadata_code`. Its entries come from
Wikipedia dumps (`list_of_wikipedia`), from WordNets (`list_of_wordnet`) and from data labelled by BCP 47 locales
(`list_of_locale`). Whatever no LID label reaches is in the list `other` (section 1 of the recipe).

Codes that look alike and are not: Wikipedia's and the LID's `als` is Alemannic, WordNet's and BCP 47's `als` is Tosk
Albanian (`sq`); Wikipedia's `nrm` is Norman; the LID's `yue` and `cbk` are Wikipedia's `zh_yue` and `cbk_zam`; `no` is
Bokmål, with `nn` beside it; `eml`, `bh` and `sh` name groups of languages that the LID knows only as groups; the LID's
`lrc` (Northern Luri) has no Wikipedia.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from worldclip.errors import DataError

#: The list of everything that no LID label reaches, and of texts whose language is unknown.
OTHER = "other"

#: `release`: a code with `_` joins the part before it. `corrected`: only dialects of that part do.
Rule = Literal["corrected", "release"]

#: Names of Wikipedias in dumps, page views and elsewhere beside their codes: those they had, or are due to have.
ALIASES = {
    "be_x_old": "be_tarask", "gsw": "als", "lzh": "zh_classical", "nan": "zh_min_nan", "nb": "no", "rup": "roa_rup",
    "sgs": "bat_smg", "vro": "fiu_vro", "yue": "zh_yue",
}  # fmt: skip

#: Wikipedias in a variety of a language that has a list of its own.
_DIALECTS = {"be_tarask": "be", "simple": "en", "zh_classical": "zh"}


@dataclass(frozen=True, kw_only=True)
class Language:
    """One Wikipedia's language: its codes and how it is written.

    `code` is the Wikipedia code, `name` is English, `script` is the ISO 15924 code of the main script, `spaced` tells
    whether words are separated by spaces, `lid` holds the LID labels and `wordnets` the Open Multilingual Wordnet 1.4
    codes that mean it, `tags` the BCP 47 tags that mean it beside `code` itself.
    """

    code: str
    name: str
    script: str
    spaced: bool
    lid: tuple[str, ...]
    wordnets: tuple[str, ...]
    tags: tuple[str, ...]


def metadata_code(lid_label: str, rule: Rule = "corrected") -> str:
    """The list that texts with this LID label are matched with; unknown, empty and `N/A` give `other`.

    Labels are those of lid.176, or an ISO 639-3 code and a script as GlotLID and OpenLID have them (`eng_Latn`).
    """
    code = _BY_LID.get(lid_label)
    language, _, script = lid_label.partition("_")
    if code is None and len(language) == 3 and len(script) == 4:
        code = code_of_iso_639_3(language)
    return list_of_wikipedia(code, rule) if code else OTHER


def code_of_iso_639_3(language: str) -> str | None:
    """The Wikipedia code of a language by its ISO 639-3 code (`als` is Tosk Albanian: `sq`), if it has one."""
    return _BY_TAG.get(_ISO_639_3.get(language, language))


def list_of_wikipedia(code: str, rule: Rule = "corrected") -> str:
    """The list that a Wikipedia joins, by its dump code (`zh_yue`) or site code (`zh-yue`).

    Under both rules a Wikipedia that no LID label reaches is in `other`. Under `release` a code with `_` first joins
    the list of the part before it, so that Cantonese and Min Nan fall under `zh`.
    """
    code = code.replace("-", "_")
    base = code.partition("_")[0]
    if rule == "corrected":
        code = _DIALECTS.get(code, code)
    elif base in LANGUAGES:
        code = base
    return code if code in LANGUAGES and LANGUAGES[code].lid else OTHER


def list_of_wordnet(omw: str) -> str:
    """The list that a wordnet of Open Multilingual Wordnet 1.4 joins, by its code there.

    Raises:
        DataError: there is no such wordnet.
    """
    if omw not in _BY_WORDNET:
        known = ", ".join(_BY_WORDNET)
        raise DataError(f"wordnet {omw!r}: is no code of Open Multilingual Wordnet 1.4; allowed: {known}.")
    return list_of_wikipedia(_BY_WORDNET[omw])


def list_of_locale(tag: str) -> str:
    """The list of a BCP 47 tag or CLDR locale (`zh-Hant-HK`, `pt_BR`, `nb`, `fil`); unknown languages give `other`."""
    subtags = tag.replace("_", "-").lower().split("-")
    for length in range(len(subtags), 0, -1):
        if code := _BY_TAG.get("-".join(subtags[:length])):
            return list_of_wikipedia(code)
    return OTHER


# Wikipedia code, ISO 15924 script, words spaced (+/-), LID labels, wordnets, further BCP 47 tags, English name (CLDR).
_TABLE = """
ab           Cyrl + -   -           -               Abkhazian
ace          Latn + -   -           -               Acehnese
ady          Cyrl + -   -           -               Adyghe
af           Latn + af  -           -               Afrikaans
als          Latn + als -           gsw             Alemannic
alt          Cyrl + -   -           -               Southern Altai
am           Ethi + am  -           -               Amharic
ami          Latn + -   -           -               Amis
an           Latn + an  -           -               Aragonese
ang          Latn + -   -           -               Old English
anp          Deva + -   -           -               Angika
ar           Arab + ar  arb         arb             Arabic
arc          Syrc + -   -           -               Aramaic
ary          Arab + -   -           -               Moroccan Arabic
arz          Arab + arz -           -               Egyptian Arabic
as           Beng + as  -           -               Assamese
ast          Latn + ast -           -               Asturian
atj          Latn + -   -           -               Atikamekw
av           Cyrl + av  -           -               Avaric
avk          Latn + -   -           -               Kotava
awa          Deva + -   -           -               Awadhi
ay           Latn + -   -           ayr             Aymara
az           Latn + az  -           azj             Azerbaijani
azb          Arab + azb -           az-arab         South Azerbaijani
ba           Cyrl + ba  -           -               Bashkir
ban          Latn + -   -           -               Balinese
bar          Latn + bar -           -               Bavarian
bat_smg      Latn + -   -           sgs             Samogitian
bbc          Latn + -   -           -               Batak Toba
bcl          Latn + bcl -           bik             Central Bikol
be           Cyrl + be  -           -               Belarusian
be_tarask    Cyrl + -   -           be-x-old        Belarusian (classical)
bew          Latn + -   -           -               Betawi
bg           Cyrl + bg  bul         -               Bulgarian
bh           Deva + bh  -           bho             Bihari
bi           Latn + -   -           -               Bislama
bjn          Latn + -   -           -               Banjar
blk          Mymr - -   -           -               Pa'O
bm           Latn + -   -           -               Bambara
bn           Beng + bn  -           -               Bengali
bo           Tibt - bo  -           -               Tibetan
bpy          Beng + bpy -           -               Bishnupriya
br           Latn + br  -           -               Breton
bs           Latn + bs  -           -               Bosnian
bug          Latn + -   -           -               Buginese
bxr          Cyrl + bxr -           bua             Buryat
ca           Latn + ca  cat         -               Catalan
cbk_zam      Latn + cbk -           cbk             Chavacano
cdo          Latn + -   -           -               Min Dong Chinese
ce           Cyrl + ce  -           -               Chechen
ceb          Latn + ceb -           -               Cebuano
ch           Latn + -   -           -               Chamorro
chr          Cher + -   -           -               Cherokee
chy          Latn + -   -           -               Cheyenne
ckb          Arab + ckb -           -               Central Kurdish
co           Latn + co  -           -               Corsican
cr           Cans + -   -           -               Cree
crh          Latn + -   -           -               Crimean Tatar
cs           Latn + cs  -           -               Czech
csb          Latn + -   -           -               Kashubian
cu           Cyrl + -   -           -               Church Slavic
cv           Cyrl + cv  -           -               Chuvash
cy           Latn + cy  -           -               Welsh
da           Latn + da  dan         -               Danish
dag          Latn + -   -           -               Dagbani
de           Latn + de  -           -               German
dga          Latn + -   -           -               Southern Dagaare
din          Latn + -   -           -               Dinka
diq          Latn + diq -           zza             Zazaki
dsb          Latn + dsb -           -               Lower Sorbian
dtp          Latn + -   -           -               Central Dusun
dty          Deva + dty -           -               Doteli
dv           Thaa + dv  -           -               Divehi
dz           Tibt - -   -           -               Dzongkha
ee           Latn + -   -           -               Ewe
el           Grek + el  ell         -               Greek
eml          Latn + eml -           egl,rgn         Emilian-Romagnol
en           Latn + en  eng         -               English
eo           Latn + eo  -           -               Esperanto
es           Latn + es  spa         -               Spanish
et           Latn + et  -           ekk             Estonian
eu           Latn + eu  eus         -               Basque
ext          Latn + -   -           -               Extremaduran
fa           Arab + fa  -           pes,prs         Persian
fat          Latn + -   -           -               Fanti
ff           Latn + -   -           -               Fula
fi           Latn + fi  fin         -               Finnish
fiu_vro      Latn + -   -           vro             Võro
fj           Latn + -   -           -               Fijian
fo           Latn + -   -           -               Faroese
fon          Latn + -   -           -               Fon
fr           Latn + fr  fra         -               French
frp          Latn + -   -           -               Arpitan
frr          Latn + frr -           -               Northern Frisian
fur          Latn + -   -           -               Friulian
fy           Latn + fy  -           -               Western Frisian
ga           Latn + ga  -           -               Irish
gag          Latn + -   -           -               Gagauz
gan          Hans - -   -           -               Gan Chinese
gcr          Latn + -   -           -               Guianan Creole
gd           Latn + gd  -           -               Scottish Gaelic
gl           Latn + gl  glg         -               Galician
glk          Arab + -   -           -               Gilaki
gn           Latn + gn  -           gug             Guarani
gom          Deva + gom -           kok             Goan Konkani
gor          Latn + -   -           -               Gorontalo
got          Goth + -   -           -               Gothic
gpe          Latn + -   -           -               Ghanaian Pidgin
gu           Gujr + gu  -           -               Gujarati
guc          Latn + -   -           -               Wayuu
gur          Latn + -   -           -               Frafra
guw          Latn + -   -           -               Gun
gv           Latn + gv  -           -               Manx
ha           Latn + -   -           -               Hausa
hak          Latn + -   -           -               Hakka Chinese
haw          Latn + -   -           -               Hawaiian
he           Hebr + he  heb         iw              Hebrew
hi           Deva + hi  -           -               Hindi
hif          Latn + hif -           -               Fiji Hindi
hr           Latn + hr  hrv         -               Croatian
hsb          Latn + hsb -           -               Upper Sorbian
ht           Latn + ht  -           -               Haitian Creole
hu           Latn + hu  -           -               Hungarian
hy           Armn + hy  -           -               Armenian
hyw          Armn + -   -           -               Western Armenian
ia           Latn + ia  -           -               Interlingua
id           Latn + id  ind         in              Indonesian
ie           Latn + ie  -           -               Interlingue
ig           Latn + -   -           -               Igbo
igl          Latn + -   -           -               Igala
ik           Latn + -   -           -               Inupiaq
ilo          Latn + ilo -           -               Iloko
inh          Cyrl + -   -           -               Ingush
io           Latn + io  -           -               Ido
is           Latn + is  isl         -               Icelandic
it           Latn + it  ita,ita_iwn -               Italian
iu           Cans + -   -           ike             Inuktitut
ja           Jpan - ja  jpn         -               Japanese
jam          Latn + -   -           -               Jamaican Creole
jbo          Latn + jbo -           -               Lojban
jv           Latn + jv  -           jw              Javanese
ka           Geor + ka  -           -               Georgian
kaa          Latn + -   -           -               Kara-Kalpak
kab          Latn + -   -           -               Kabyle
kbd          Cyrl + -   -           -               Kabardian
kbp          Latn + -   -           -               Kabiye
kcg          Latn + -   -           -               Tyap
kg           Latn + -   -           -               Kongo
ki           Latn + -   -           -               Kikuyu
kk           Cyrl + kk  -           -               Kazakh
kl           Latn + -   -           -               Kalaallisut
km           Khmr - km  -           -               Khmer
kn           Knda + kn  -           -               Kannada
ko           Kore + ko  -           -               Korean
koi          Cyrl + -   -           -               Komi-Permyak
krc          Cyrl + krc -           -               Karachay-Balkar
ks           Arab + -   -           -               Kashmiri
ksh          Latn + -   -           -               Colognian
ku           Latn + ku  -           kmr             Kurdish
kus          Latn + -   -           -               Kusaal
kv           Cyrl + kv  -           kpv             Komi
kw           Latn + kw  -           -               Cornish
ky           Cyrl + ky  -           -               Kyrgyz
la           Latn + la  -           -               Latin
lad          Latn + -   -           -               Ladino
lb           Latn + lb  -           -               Luxembourgish
lbe          Cyrl + -   -           -               Lak
lez          Cyrl + lez -           -               Lezghian
lfn          Latn + -   -           -               Lingua Franca Nova
lg           Latn + -   -           -               Ganda
li           Latn + li  -           -               Limburgish
lij          Latn + -   -           -               Ligurian
lld          Latn + -   -           -               Ladin
lmo          Latn + lmo -           -               Lombard
ln           Latn + -   -           -               Lingala
lo           Laoo - lo  -           -               Lao
lt           Latn + lt  lit         -               Lithuanian
ltg          Latn + -   -           -               Latgalian
lv           Latn + lv  -           lvs             Latvian
mad          Latn + -   -           -               Madurese
mai          Deva + mai -           -               Maithili
map_bms      Latn + -   -           -               Banyumasan
mdf          Cyrl + -   -           -               Moksha
mg           Latn + mg  -           plt             Malagasy
mhr          Cyrl + mhr -           chm             Eastern Mari
mi           Latn + -   -           -               Māori
min          Latn + min -           -               Minangkabau
mk           Cyrl + mk  -           -               Macedonian
ml           Mlym + ml  -           -               Malayalam
mn           Cyrl + mn  -           khk             Mongolian
mni          Mtei + -   -           -               Manipuri
mnw          Mymr - -   -           -               Mon
mr           Deva + mr  -           -               Marathi
mrj          Cyrl + mrj -           -               Western Mari
ms           Latn + ms  zsm         zsm,zlm         Malay
mt           Latn + mt  -           -               Maltese
mwl          Latn + mwl -           -               Mirandese
my           Mymr - my  -           -               Burmese
myv          Cyrl + myv -           -               Erzya
mzn          Arab + mzn -           -               Mazanderani
nah          Latn + nah -           nhn             Nahuatl
nap          Latn + nap -           -               Neapolitan
nds          Latn + nds -           -               Low German
nds_nl       Latn + -   -           -               Low Saxon (Netherlands)
ne           Deva + ne  -           npi             Nepali
new          Deva + new -           -               Newari
nia          Latn + -   -           -               Nias
nl           Latn + nl  nld         -               Dutch
nn           Latn + nn  nno         -               Norwegian Nynorsk
no           Latn + no  nob         nb              Norwegian
nov          Latn + -   -           -               Novial
nqo          Nkoo + -   -           -               N'Ko
nrm          Latn + -   -           nrf             Norman
nso          Latn + -   -           -               Northern Sotho
nv           Latn + -   -           -               Navajo
ny           Latn + -   -           -               Nyanja
oc           Latn + oc  -           -               Occitan
olo          Latn + -   -           -               Livvi-Karelian
om           Latn + -   -           gaz             Oromo
or           Orya + or  -           ory             Odia
os           Cyrl + os  -           -               Ossetic
pa           Guru + pa  -           -               Punjabi
pag          Latn + -   -           -               Pangasinan
pam          Latn + pam -           -               Pampanga
pap          Latn + -   -           -               Papiamento
pcd          Latn + -   -           -               Picard
pcm          Latn + -   -           -               Nigerian Pidgin
pdc          Latn + -   -           -               Pennsylvania German
pfl          Latn + pfl -           -               Palatine German
pi           Deva + -   -           -               Pali
pih          Latn + -   -           -               Norfuk-Pitkern
pl           Latn + pl  pol         -               Polish
pms          Latn + pms -           -               Piedmontese
pnb          Arab + pnb -           lah,pa-arab,pa-pk Western Punjabi
pnt          Grek + -   -           -               Pontic
ps           Arab + ps  -           pbu             Pashto
pt           Latn + pt  por         -               Portuguese
pwn          Latn + -   -           -               Paiwan
qu           Latn + qu  -           quz,quy         Quechua
rm           Latn + rm  -           -               Romansh
rmy          Latn + -   -           -               Vlax Romani
rn           Latn + -   -           -               Rundi
ro           Latn + ro  ron         mo              Romanian
roa_rup      Latn + -   -           rup             Aromanian
roa_tara     Latn + -   -           -               Tarantino
ru           Cyrl + ru  -           -               Russian
rue          Cyrl + rue -           -               Rusyn
rw           Latn + -   -           -               Kinyarwanda
sa           Deva + sa  -           -               Sanskrit
sah          Cyrl + sah -           -               Yakut
sat          Olck + -   -           -               Santali
sc           Latn + sc  -           src             Sardinian
scn          Latn + scn -           -               Sicilian
sco          Latn + sco -           -               Scots
sd           Arab + sd  -           -               Sindhi
se           Latn + -   -           -               Northern Sami
sg           Latn + -   -           -               Sango
sh           Latn + sh  -           hbs             Serbo-Croatian
shi          Latn + -   -           -               Tachelhit
shn          Mymr - -   -           -               Shan
si           Sinh + si  -           -               Sinhala
simple       Latn + -   -           -               Simple English
sk           Latn + sk  slk         -               Slovak
skr          Arab + -   -           -               Saraiki
sl           Latn + sl  slv         -               Slovenian
sm           Latn + -   -           -               Samoan
smn          Latn + -   -           -               Inari Sami
sn           Latn + -   -           -               Shona
so           Latn + so  -           -               Somali
sq           Latn + sq  als         als             Albanian
sr           Cyrl + sr  -           -               Serbian
srn          Latn + -   -           -               Sranan Tongo
ss           Latn + -   -           -               Swati
st           Latn + -   -           -               Southern Sotho
stq          Latn + -   -           -               Saterland Frisian
su           Latn + su  -           -               Sundanese
sv           Latn + sv  swe         -               Swedish
sw           Latn + sw  -           swh             Swahili
szl          Latn + -   -           -               Silesian
szy          Latn + -   -           -               Sakizaya
ta           Taml + ta  -           -               Tamil
tay          Latn + -   -           -               Atayal
tcy          Knda + -   -           -               Tulu
te           Telu + te  -           -               Telugu
tet          Latn + -   -           -               Tetum
tg           Cyrl + tg  -           -               Tajik
th           Thai - th  tha         -               Thai
ti           Ethi + -   -           -               Tigrinya
tk           Latn + tk  -           -               Turkmen
tl           Latn + tl  -           fil             Tagalog
tly          Latn + -   -           -               Talysh
tn           Latn + -   -           -               Tswana
to           Latn + -   -           -               Tongan
tpi          Latn + -   -           -               Tok Pisin
tr           Latn + tr  -           -               Turkish
trv          Latn + -   -           -               Taroko
ts           Latn + -   -           -               Tsonga
tt           Cyrl + tt  -           -               Tatar
tum          Latn + -   -           -               Tumbuka
tw           Latn + -   -           ak              Twi
ty           Latn + -   -           -               Tahitian
tyv          Cyrl + tyv -           -               Tuvinian
udm          Cyrl + -   -           -               Udmurt
ug           Arab + ug  -           -               Uyghur
uk           Cyrl + uk  -           -               Ukrainian
ur           Arab + ur  -           -               Urdu
uz           Latn + uz  -           uzn             Uzbek
ve           Latn + -   -           -               Venda
vec          Latn + vec -           -               Venetian
vep          Latn + vep -           -               Veps
vi           Latn + vi  -           -               Vietnamese
vls          Latn + vls -           -               West Flemish
vo           Latn + vo  -           -               Volapük
wa           Latn + wa  -           -               Walloon
war          Latn + war -           -               Waray
wo           Latn + -   -           -               Wolof
wuu          Hans - wuu -           -               Wu Chinese
xal          Cyrl + xal -           -               Kalmyk
xh           Latn + -   -           -               Xhosa
xmf          Geor + xmf -           -               Mingrelian
yi           Hebr + yi  -           ydd,ji          Yiddish
yo           Latn + yo  -           -               Yoruba
za           Latn + -   -           -               Zhuang
zea          Latn + -   -           -               Zeelandic
zgh          Tfng + -   -           -               Standard Moroccan Tamazight
zh           Hans - zh  cmn         cmn             Chinese
zh_classical Hant - -   -           lzh             Literary Chinese
zh_min_nan   Latn + -   -           nan             Min Nan Chinese
zh_yue       Hant - yue -           yue             Cantonese
zu           Latn + -   -           -               Zulu
"""


def _parse(table: str) -> dict[str, Language]:
    languages = {}
    for line in table.strip().splitlines():
        code, script, spaced, *lists, name = line.split(maxsplit=6)
        lid, wordnets, tags = (() if cell == "-" else tuple(cell.split(",")) for cell in lists)
        languages[code] = Language(
            code=code, name=name, script=script, spaced=spaced == "+", lid=lid, wordnets=wordnets, tags=tags
        )
    languages[OTHER] = Language(
        code=OTHER, name="Other languages", script="Zyyy", spaced=True, lid=("lrc",), wordnets=(), tags=("und",)
    )
    return languages


#: Every Wikipedia language by its code, and `other`.
LANGUAGES: Mapping[str, Language] = MappingProxyType(_parse(_TABLE))

_BY_LID = {label: language.code for language in LANGUAGES.values() for label in language.lid}
_BY_WORDNET = {omw: language.code for language in LANGUAGES.values() for omw in language.wordnets}
_BY_TAG = {code.replace("_", "-"): code for code in LANGUAGES} | {
    tag: language.code for language in LANGUAGES.values() for tag in language.tags
}
# ISO 639-3 codes of languages that BCP 47 and Wikipedia write with two letters, beside those in the table's tags.
_ISO_639_3_PAIRS = """
abk:ab afr:af amh:am ara:ar arg:an asm:as ava:av aym:ay aze:az bak:ba bam:bm bel:be ben:bn bih:bh bis:bi bod:bo bos:bs
bre:br bul:bg cat:ca ces:cs cha:ch che:ce chu:cu chv:cv cor:kw cos:co cre:cr cym:cy dan:da deu:de div:dv dzo:dz ell:el
eng:en epo:eo est:et eus:eu ewe:ee fao:fo fas:fa fij:fj fin:fi fra:fr fry:fy ful:ff gla:gd gle:ga glg:gl glv:gv grn:gn
guj:gu hat:ht hau:ha hbs:sh heb:he hin:hi hrv:hr hun:hu hye:hy ibo:ig ido:io iku:iu ile:ie ina:ia ind:id ipk:ik isl:is
ita:it jav:jv jpn:ja kal:kl kan:kn kas:ks kat:ka kaz:kk khm:km kik:ki kin:rw kir:ky kom:kv kon:kg kor:ko kur:ku lao:lo
lat:la lav:lv lim:li lin:ln lit:lt ltz:lb lug:lg mal:ml mar:mr mkd:mk mlg:mg mlt:mt mon:mn mri:mi msa:ms mya:my nav:nv
nep:ne nld:nl nno:nn nob:no nor:no nya:ny oci:oc ori:or orm:om oss:os pan:pa pli:pi pol:pl por:pt pus:ps que:qu roh:rm
ron:ro run:rn rus:ru sag:sg san:sa sin:si slk:sk slv:sl sme:se smo:sm sna:sn snd:sd som:so sot:st spa:es sqi:sq srd:sc
srp:sr ssw:ss sun:su swa:sw swe:sv swh:sw tah:ty tam:ta tat:tt tel:te tgk:tg tgl:tl tha:th tir:ti ton:to tsn:tn tso:ts
tuk:tk tur:tr twi:tw uig:ug ukr:uk urd:ur uzb:uz uzn:uz ven:ve vie:vi vol:vo wln:wa wol:wo xho:xh yid:yi yor:yo zha:za
zho:zh zsm:ms zul:zu kmr:ku
"""
_ISO_639_3 = dict(pair.split(":") for pair in _ISO_639_3_PAIRS.split())

"""Names of people and places that are also everyday English words."""

from __future__ import annotations

from typing import Final

_LISTED: Final = """
abbey abbot ace actor amber angel angers apple april archer aria armstrong arrow art ascot ash aspen august autumn
bacon baker bank banks barber barbie barley baron barrow barry basil bass bath battle bay beach bean beans bear beer
bell bells bend bergen berliner berry beryl best bill billy bird bishop black blanks blessed bliss blossom blue
blunt bold bologna bolt bond boring bow brazil brest bridge bridges bright brook brooks brown buck buddy buffalo
bull bunny burgundy bury bush butcher butler cadence cannon captain cardigan carol carpenter carter case cases cash
castle cedar cellar chad chamber chambers champ champagne chance chancellor chandler chapel charity chase cherry
chile china chip christian christmas church clark clay clemency clementine clerk cliff coal colby cole cologne colt
commerce concord constance cook cooper coral cork corning cotton cox crane crimson cross cruise crystal cuba cyan
daisy dale dash dawn day days deacon deal dean dear delft dell derby destiny diamond dick dirk diss doe dollar dolly
door dot dove drake dream drew duke dusty eagle earl easter ebony echo eden electra emperor enterprise era essen
essence eve ever eye fable faith falcon fancy farmer felicity fern field fields finch fish fisher fleming fletcher
flint flower flowers ford forest forester forge fountain fox frank frankfurt friday friendship gail gale gardener
garnet gate gates gay gem gene genesis gentle georgia gift ginger glen glory glover gold golden goldie grace grant
gray green grey grove guard guernsey guinea gun gunn gus guy hall halo ham hamburg hank happy hardy harmony harp
harper harry haven hawk hay hazard hazel heath heather heaven hedge hill hills holly honey honor honour hood hope
house hull hunter imperial independence industry iris iron irons island ivory ivy jack jade january japan jasmine
java jay jean jeans jersey jewel jimmy john johnny jolie jolly jordan journey joy joyce judge june junior justice
keen kelly king kitchen kitty knight lace lady lake lakes lamb lance lane lark laurel law laws legend lens leo
liberty light lily lima limerick lion little long lord loud love lovely loving lucky luna lyric mailer major male
march mark marsh marshall martin marvel mason max may meadow meadows melody memory mercer mercy merry mile miles
mill miller mills miracle misty mobile mold monday money monk month moody moon moor moore mount muse myrtle nancy
nice nick night noble noel noon normal nova nun oats ocean old olive olympia opal orange oxford pack page panama
parade paradise park parker parks parma pat patience pax peach peacock pearce pearl peculiar penny pepper perth
petal peter phoenix pierce pike pilot piper player plum poet pole polish polo pond pool poole poor pope poppy porter
post potter power powers price prince princess prior promise prosper prudence psalm queen quest quick rain randy
ranger rapid raven ray reading rebel red reed reid reign remi rhythm rice rich ridge river rivers riverside roach
rob robin rock rocks rocky rod rose rosemary rough rover rowan royal ruby rugby rush rusk rusty ryder rye sadler
saffron sage sailor saint salem salmon salt sand sandwich sandy sapphire sargent satin savage sawyer scarlet scout
season serenity sergeant shade shadow sharp shepherd shield shields shine shore short silence silk silver singer sir
skinner skip sky skylar small smith snow sofia sonata song soul sparks speaker spear spears spencer spike split
spring springs squire star stark steel steele sterling stern steward stewart stone stones storm stormy street strong
sue summer sunday sunny superior surprise swallow swan sweet swift sword symphony tailor tan tangier tanner taylor
temperance tempest temple tiger tom tommy tony topaz tours tower trace travel treasure trinity troy tru true trust
tune turkey turner union unity universe valor velvet venus verity vichy victor victory viola violet vision wade
walker wall walls ward warden ware weaver week well wells whisper white wild wilder will willow winter wise wolf
wolfe wonder wood woods woody wool worth worthy wren writer young zen zest
"""
EVERYDAY: Final = frozenset(_LISTED.split())
"""Lower-cased. In private strings such a name counts only where the text capitalises it."""

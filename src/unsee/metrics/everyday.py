"""Names of people and places that are also everyday words of English."""

from __future__ import annotations

from typing import Final

EVERYDAY: Final = frozenset(
    """
    nice reading hope mobile orange bath cork split lens buffalo phoenix deal rugby battle wells sandwich hull bury
    barrow stone ware poole rye diss eye ash beer wool mold flint barry cardigan cologne essen brest tours nancy angers
    vichy troy corning rapid normal superior eden paradise independence liberty enterprise friendship harmony union concord
    commerce industry surprise peculiar hazard boring imperial riverside bend salem salt lake island ocean beach bay
    turkey china jordan chad guinea cuba chile jersey guernsey georgia japan brazil lima java male panama limerick
    champagne burgundy bologna parma delft derby oxford ascot polo pole polish march china sofia perth bergen hamburg
    frankfurt berliner tangier
    grace faith joy mercy charity patience prudence constance verity felicity clemency honor honour glory serenity
    destiny trinity heaven angel bliss dream star sky sunny stormy rain misty dawn eve april may june august january
    summer autumn winter spring season christmas easter noel
    rose lily daisy iris ivy violet jasmine heather holly hazel olive poppy ginger pepper basil rosemary sage saffron
    cherry peach plum apple berry clementine fern willow laurel myrtle cedar aspen rowan forest bush flower blossom petal
    amber ruby pearl jade opal crystal diamond gem jewel goldie silver sterling garnet coral sapphire topaz beryl
    robin wren jay martin raven dove lark swan crane finch drake hawk falcon eagle peacock bird fox wolf lamb bull bear
    bunny kitty tiger lion colt buck doe leo fish pike bass salmon
    mark bill will jack frank grant chase hunter mason carter cooper page cook baker butcher butler carpenter porter
    potter tanner taylor tailor turner miller fisher farmer gardener shepherd smith weaver walker sawyer skinner fletcher
    archer knight squire bishop pope abbot prior deacon dean chancellor marshall major sargent sergeant judge chandler
    clark clerk spencer steward stewart warden ward parker forester barber piper sadler glover mercer
    long short young old rich poor small little strong armstrong wise sharp swift sweet bright bold hardy gentle noble
    moody savage wild cross stark stern blunt keen quick rough merry jolly gay happy lucky loud blessed lovely dear
    white black brown green gray grey red blue gold golden scarlet crimson tan ebony ivory cyan
    king queen prince duke earl baron major lord lady sir emperor princess royal
    art guy gene ray rob sue pat drew gail gale dale glen heath cliff reed reid ridge brook brooks rivers river lake
    lakes pond pool marsh moore moor hill hills mount field fields meadow meadows wood woods grove park parks lane street
    banks bank shore stone stones rock rocks sand sandy rusty dusty clay cole coal flint steele steel iron irons
    bell bells penny dollar cash price sterling money rush rusk love loving
    victor victory max miles mile rod rocky storm skip chip buddy junior christian pierce pearce lance spike dirk
    jean jeans jimmy john johnny peter dick randy woody harry tom tony tommy billy nick dot dolly barbie carol melody
    harmony harp viola sonata aria lyric song tune cadence rhythm piper
    wade ford forge bridge bridges church temple abbey chapel monk nun house hall castle tower gates gate wall walls
    door chamber chambers kitchen cellar street well wells spring springs fountain bush hedge hay barley rice bean beans
    oats cotton silk wool lace velvet satin
    best worth worthy trust power powers law laws case cases day days week month night knight noon sunday monday friday
    spears spear shields shield sword bow arrow bolt gunn gun cannon wolfe pack hood mills mill
    cruise travel rover scout ranger pilot sailor captain guard post mailer speaker singer player actor writer
    gay blanks bond fleming joyce ham bacon sage cox swallow sparks flowers roach
    ace champ chance chase colby dash dell fern gus hank harper jolie kelly major misty nova pax poet reign remi rebel
    river ryder saint shine skylar star sunny true tru wilder wren zen zest echo electra era essence ever fable fancy
    genesis gift glory halo haven honey journey june justice lark legend lake light luna lyric marvel memory miracle
    moon muse ocean olympia parade promise prosper psalm quest rain royal sailor shade shadow silence snow soul sunday
    symphony temperance tempest trace treasure unity universe valor venus vision whisper wonder
    """.split()
)
"""In lower case. Such a name in private strings counts only where the text has it with a capital."""
